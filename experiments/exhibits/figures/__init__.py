"""The published figures: one module per figure, drawn from rows alone; ``make figures`` redraws them."""
