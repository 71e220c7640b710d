"""A model before and after: what `qcomp compare` measures, and the page that shows it."""
