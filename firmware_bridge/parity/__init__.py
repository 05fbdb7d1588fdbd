"""Is the policy on a board the exported one, bit by bit, and what does a decision cost there?"""
