"""Data sets as uint8 arrays, and what turns their pixels into a network's units."""
