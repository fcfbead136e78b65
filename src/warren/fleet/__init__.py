"""Many machines: reached over ssh, given Warren, and brought the documents that they follow."""
