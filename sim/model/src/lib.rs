//! An exhaustive small-scope model of boxpool's protocol.
