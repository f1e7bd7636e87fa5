"""Deltas: one file rebuilt from another that is on the disk already and a patch that is far smaller than the file.

``codec`` makes and applies patches, ``tensors`` finds the numbers in a model file, ``process`` applies a patch in a
child that cannot do harm. Promises: what is rebuilt has the stated size, or the patch is refused; memory stays
bounded whatever the size of the files; a patch of a released format is read for ever. Leaves to others: whether the
rebuilt bytes are the right ones. The caller hashes them against the signed digest; nothing here is a reason to trust
a patch. Format: docs/reference/delta-format.md.
"""
