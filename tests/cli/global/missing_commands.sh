# coimg only
coimg rebase -l x
