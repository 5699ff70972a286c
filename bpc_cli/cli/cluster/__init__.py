"""Sweeps whose jobs wait in a queue: submitted, recorded, waited for."""
