"""The record of writes: who wrote what, when and where, chained so that no change of it goes unseen."""
