//! Request queue, generation engine, job registry and replayable events.
