"""What the operator wrote: text in, Inventory or every problem at once out."""
