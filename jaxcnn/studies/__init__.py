"""Studies: experiments made of several parts of the package, with a table and a figure as their result."""
