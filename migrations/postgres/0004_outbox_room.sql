-- An event that is claimed is written anew a moment after it was written first, among as many others: with room for all of
-- them in their own pages no index has to learn of it. Pages that are there already stay as they are.
ALTER TABLE outbox SET (fillfactor = 40);
