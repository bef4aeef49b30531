-- epoch(token) -> 1 | 0 (emptied since that rebuild began, or another one began)
local token = ARGV[1]
if call('GET', P .. 'epoch') == token then return 1 end -- the reply was lost
if call('GET', P .. 'rebuilding') ~= token then return 0 end
call('RENAME', P .. 'rebuilding', P .. 'epoch')
return 1
