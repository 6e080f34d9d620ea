"""What the report of a search shows: verdict, figures, pictures."""
