"""Talking to a trained model: tokenizer and model wired together.

    messages ─▶ ChatML ids ─▶ generate ─▶ ids up to <|im_end|> ─▶ text
"""
