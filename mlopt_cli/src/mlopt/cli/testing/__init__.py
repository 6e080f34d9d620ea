"""Real runs in processes of their own, to be killed, damaged and compared."""
