"""What families share to read a user's data: tables, pictures, and the rules by which both are decoded."""
