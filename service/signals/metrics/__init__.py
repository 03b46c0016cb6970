"""Every metric declared once, and what moves it."""
