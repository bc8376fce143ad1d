"""The models that this project describes: their table, and how mmpretrain finds them."""
