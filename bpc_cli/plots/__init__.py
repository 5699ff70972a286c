"""Arrays → figures, as files: sample grids, curves and confusion matrices."""
