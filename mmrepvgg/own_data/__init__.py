"""From images of one's own to a config."""
