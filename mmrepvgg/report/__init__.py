"""One page about a training: what was learnt, what goes wrong, and what the switch did."""
