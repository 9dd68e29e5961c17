"""What people look at: HTML and Markdown, made from the stored frames and nothing else.

No module in here imports torch or a model, so a report can be remade on any machine.
"""
