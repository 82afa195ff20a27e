# coimg only
coimg map --help
