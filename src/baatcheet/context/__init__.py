"""What goes into a model's window: counting, planning, receipts."""
