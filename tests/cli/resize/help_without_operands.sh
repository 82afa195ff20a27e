# coimg only
coimg resize --help | head -1
coimg resize -h | head -1
coimg resize --bogus
coimg resize
