// Jest looks for its settings beside the tests; the defaults will do.
module.exports = {};
