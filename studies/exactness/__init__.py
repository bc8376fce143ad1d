"""How exact the switch is, on random blocks and networks."""
