"""The report's sections about starts, for any kind of run with starts."""
