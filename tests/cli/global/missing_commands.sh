# coimg only
coimg snapshot -l x
