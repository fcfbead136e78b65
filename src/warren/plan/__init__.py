"""Document + me -> Desired; Observed x Desired -> Steps. Pure: the same on the machine and in the preview."""
