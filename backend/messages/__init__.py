"""What people read, in their language: English texts with named placeholders, and catalogues."""
