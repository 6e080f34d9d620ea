"""What a report shows of starts, wherever a run has left them."""
