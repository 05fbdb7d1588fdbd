"""Evolution of a timing policy: an evolution strategy searches the weights of a small actor on many plants at once."""
