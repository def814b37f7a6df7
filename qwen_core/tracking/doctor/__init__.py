"""The doctor: reads the curves of a run, of ours or of another tool, and says what is wrong with them and why.

    address ─▶ curves, files ─▶ record.Run ─▶ names ─▶ evidence ─▶ causes/* (by signs) ─▶ report (texts/*.yaml, plot)

`docs/validation.md` describes every cause. Nothing is imported here, for numpy and mlflow take their time.
"""
