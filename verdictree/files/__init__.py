"""Files that hold whatever dies, machine, process or disk.

atomic_file.py   replaced in one step, or not at all
spare_files.py   room that is kept for the way back on a full disk
file_lock.py     locks that the kernel gives back when their holder dies
"""
