"""The learned optimizer of Learn2Hop: a network makes the step of each component."""
