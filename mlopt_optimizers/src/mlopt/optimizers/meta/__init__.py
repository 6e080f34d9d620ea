"""Meta-learning: trainers, and the experiment that runs them."""
