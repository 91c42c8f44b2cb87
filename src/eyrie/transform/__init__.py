"""A transform job's run: a process of its own that reads objects from the bucket, has instances answer their records,
and writes the results back. Floor 4; control starts it and looks at what it leaves in its box.
"""
