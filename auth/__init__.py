"""Ready-to-use authentication: one class per file, yours to edit."""
