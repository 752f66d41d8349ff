"""What variants compute with torch at import: their registrations stay light, and import from here when one is used."""
