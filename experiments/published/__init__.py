"""From rows to results/ and back: reproduce, publish, check, redraw."""
