"""The experiment `search`: many starts, one optimizer, the unique minima that they found."""
