"""The Jobnet booking broker: carries booking requests to jobcenters' systems and answers each once, honestly."""
