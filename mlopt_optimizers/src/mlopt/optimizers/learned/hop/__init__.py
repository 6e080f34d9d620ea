"""The learned hop: a network chooses moves, steps and temperature after each quench."""
