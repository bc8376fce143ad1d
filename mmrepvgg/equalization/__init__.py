"""Exact rescaling of the channels of a deploy form, after which one int8 scale a tensor serves it."""
