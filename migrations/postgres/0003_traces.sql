-- Where in a trace an event was written, in the form of W3C Trace Context, so that whoever gets it goes on with that trace.
ALTER TABLE outbox ADD COLUMN traceparent TEXT;
