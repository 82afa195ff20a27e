# coimg only
coimg
