"""Peers, each as a user would run it at its documented best, as modules of their own: what is missing is only missed."""
