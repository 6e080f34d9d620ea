"""Fitting: from labelled structures to the parameters of a potential."""
