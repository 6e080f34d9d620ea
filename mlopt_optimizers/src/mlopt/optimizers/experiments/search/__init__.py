"""The experiment `search`: one optimizer from many starts, and the unique minima."""
