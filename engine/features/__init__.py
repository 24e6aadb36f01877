"""What a list knows of its candidates: where they come from, who had them together, and the table of features."""
