"""The words and plots of the builtin stories: text only, told by builtin.py.

In a plot, `<a|b>` is a choice of the teller and may be nested; `{slot}` is drawn once per story, from TABLES or from the cast:
`h` the hero, `f` a friend, `m` a grown-up, each with name, kind, the_kind, he, him, his, He, His. A blank line ends a paragraph.
A change here changes the stories: raise builtin.VERSION with it.
"""

# Entries of a table are separated by ";", and the parts of an entry that belong together by " / ".
TABLES = """
girl: Lily; Mia; Anna; Sue; Lucy; Ella; Rose; Amy; Zoe; Emma; Nora; Ivy; Jane; Molly; Kate; Ruby; Grace; Daisy; Bella; Sara;
    Alice; Clara; Hazel; Lola; Maya; Nina
boy: Tim; Tom; Ben; Max; Sam; Jack; Leo; Finn; Noah; Owen; Luke; Adam; Jake; Paul; Billy; Toby; Oscar; Henry; Peter; Theo;
    Felix; Hugo; Simon; Teddy; David; Frank
animal: rabbit; bear; fox; squirrel; mouse; duck; hedgehog; kitten; puppy; frog; turtle; deer; panda; lamb; pig; goat; monkey;
    penguin
color: red; blue; green; yellow; pink; brown; white; purple; golden; striped; silver
toy: ball; teddy bear; toy car; doll; drum; train; boat; robot; toy truck; puppet; trumpet; rocket; marble; whistle; tractor;
    dragon; yo-yo
trait: kind; brave; curious; happy; clever; gentle; cheerful; friendly; polite; careful; funny; patient; playful; honest;
    thoughtful
weather: sunny; windy; warm; bright; cool; beautiful; lovely; quiet; fresh; golden
place: the park; the garden; the beach; the forest; the lake; the farm; the hill; the river; the meadow; the castle; the
    village; the pond; the windmill
treats: cookies; berries; apples; grapes; pancakes; nuts; cherries; carrots; muffins; sandwiches; peaches; plums;
    strawberries; raisins; biscuits; oranges; bananas
hobby: sing; dance; paint; run and jump; play outside; read books; look at the clouds; help others; count the stars; collect
    shells; tell stories; build towers; draw animals; pick flowers; listen to music
game: hide and seek; catch; tag; with the ball; in the sand; in the leaves; a guessing game; pirates; explorers; school
spots: under the bed / behind the door / in the big box; on the shelf / under the table / behind the chair; in the basket /
    under the pillow / by the window; in the closet / under the blanket / behind the curtain; in the garden / under the stairs
    / near the fence; behind the big tree / in the tall grass / next to the gate
stuck: kite / in a tall tree; balloon / in a tall tree; hat / on a high branch; paper plane / on the roof of a barn; scarf /
    on a high branch; kite / on the roof of a barn; balloon / between two high branches
shared: swing; bike; wagon; scooter; drum; sled; toy boat; kite; telescope; skateboard; trampoline; hammock; wheelbarrow;
    canoe
fear: the dark / The sun went down and the room became dark / The dark lets us see the stars / looked out of the window and
    saw a hundred bright stars; thunder / The sky became gray and there was a loud boom / Thunder is only the clouds clapping
    their hands / clapped back at the clouds and began to giggle; the tall slide / The slide went up and up into the sky / I
    will wait for you at the bottom / climbed up, sat down and went down with a big whoosh; the big dog / The big dog ran up
    and barked / The dog barks because it wants to play / held out a hand, and the dog gave it a wet kiss; bees / A fat bee
    flew past and went buzz, buzz, buzz / The bee only wants to visit the flowers / stood very still and watched the bee drink
    from a flower; the water / The water was big and blue and cold / We will go in one step at a time / put one foot in, then
    the other, and soon began to splash; the wind / The wind howled in the chimney and shook the door / The wind is only
    singing its song / listened, and then sang along with the wind; spiders / A spider came down on a thin thread / The spider
    is small, and you are a giant to it / looked closely and saw how neatly the spider made its web; school / The school was
    new and full of strangers / Everybody here was new one day / sat down next to a smiling child and opened a book; the old
    bridge / The bridge was long and it moved in the wind / The bridge is strong, and I will walk with you / took one small
    step, then another, and then stood on the other side
gift: bake a cake / eggs / cake; bake a pie / apples / pie; bake bread / flour / bread; make a necklace / beads /
    necklace; make a crown / yellow flowers / crown; cook soup / carrots / soup; paint a picture / red paint / picture;
    sew a blanket / buttons / blanket; bake a cake / milk / cake; make a salad / cucumbers / salad; knit a scarf / wool /
    scarf; build a bird house / nails / bird house; cook jam / raspberries / jam; make a card / glitter / card; bake
    bread / butter / bread
hurt: bird / Chirp, chirp / wing / fly; kitten / Meow, meow / paw / run; duckling / Quack, quack / foot / swim; bunny /
    Squeak, squeak / leg / hop; puppy / Woof, woof / paw / run; bat / Squeak, squeak / wing / fly
fragile: vase; cup; plate; lamp; jar; bowl; teapot; pot; statue
plant: sunflower / It was as yellow as the sun; pumpkin / It was round and orange; rose / It was red and smelled sweet; tomato
    plant / It was full of red tomatoes; strawberry plant / It was full of sweet strawberries; bean plant / It was taller than
    the fence; tulip / It was pink and soft; melon / It was heavy and green; lemon tree / It was full of yellow lemons; pepper
    plant / It was full of shiny peppers
skill: ride a bike / {h.he} fell on the soft grass / rode all the way down the path; swim / {h.he} got water in {h.his} nose /
    swam across the whole pond; whistle / only air came out / whistled a happy song; skate / {h.his} feet went in two
    directions / skated in a big circle; jump rope / the rope caught {h.his} feet / jumped ten times without a stop; climb a
    tree / {h.he} slid back down / sat on a strong branch and looked at the world; juggle / the balls rolled under the table /
    juggled three balls at once; dive / {h.he} landed on {h.his} belly / dived like a dolphin; write / the letters fell over /
    wrote a whole letter; stand on one leg / {h.he} fell over with a bump / stood on one leg like a big bird; play the flute /
    it sounded like an angry goose / played a soft and pretty song
indoor: build a house of blankets / They hung blankets over the chairs and crawled inside; have a tea party / They put cups on
    the table and invited all the toys; put on a puppet show / They made puppets from old socks and gave them funny voices;
    make paper boats / They folded the paper and let the boats sail in the bathtub; build a castle / They built high towers
    from boxes and spoons and made a king of the teddy bear; play detectives / They looked for clues with a magnifying glass
    and found a missing button; have a concert / They hit the pots with wooden spoons and sang at the top of their voices;
    paint a rainbow / They painted red, yellow, green and blue on a long piece of paper
prize: a gold medal; a big silver cup; a blue ribbon; a basket of fruit; a shiny star; a huge balloon; a paper crown; a jar of
    honey; a new book
"""

INTRO = """
<Once upon a time|Once|A long time ago|In a small house near {place}>, there <was|lived> {h.kind} named {h.name}.
<{h.name} was very {trait}.|Everyone said that {h.name} was very {trait}.|{h.name} was {trait} and loved to {hobby}.|
{h.name} loved to {hobby}.|Most of all, {h.name} loved to {hobby}.>
"""

PLOTS = (
    # Something is lost.
    """
{h.name} had a {color} {toy}. It was {h.his} favorite toy, and {h.he} <took it everywhere|played with it every day>.

One {weather} <day|morning>, {h.name} could not find the {toy}. "<Oh no|Oh dear>! Where is my {toy}?" {h.he} <cried|asked>.
<First, {h.he}|{h.He}> looked {spots[0]}, but it was not there. <Then {h.he}|Next, {h.he}> looked {spots[1]}, but <it was not
there either.|there was only <an old sock|a lot of dust|a little spider>.> {h.name} felt <very sad|sad> and began to cry.

{m.name} <heard {h.him} and came to help|saw {h.him} and sat down next to {h.him}>. "<Do not worry|Do not cry>, {h.name},"
{m.he} said. "<Think hard.|Try to remember.> Where did you play <yesterday|last>?" {h.name} thought and thought. "I <was|played>
{spots[2]}!" {h.he} said. They went to look, and there <was the {color} {toy}|it was>! {h.name} <hugged the {toy}|jumped for
joy> and said, "Thank you, {m.name}!" From that day on, {h.name} always put the {toy} <back in the toy box|in a safe place>
<before bed|after playing>.
""",
    # Something is out of reach.
    """
{h.He} had a friend named {f.name}.

One {weather} day, {h.name} and {f.name} went to {place} with a {color} {stuck[0]}. They <laughed and played|had a lot of fun>.
<Suddenly|Then>, <a strong wind came|the wind blew hard>. The {stuck[0]} <flew up, up, up|went high into the air> and got stuck
{stuck[1]}. "Oh no!" said {h.name}. "<How can we get it back|What can we do>?"

{h.name} jumped as high as {h.he} could, but {h.he} was too <small|short>. Then {f.name} tried with a long stick, but the
{stuck[0]} did not move. <They sat down and felt sad.|They were both sad.> Then {h.name} had an idea. <"Climb on my back,"
{h.he} said. {f.name} climbed up, stretched out as far as {f.he} could, and got the {stuck[0]}!|"Let's ask {m.name}," {h.he}
said. {m.name} came with a ladder, climbed up and got the {stuck[0]}. "Here you are," {m.he} said.>

"Hooray!" <they shouted|shouted {f.name}>. "<We did it together|You are so clever>, {h.name}!" They <played until the sun went
down|held the {stuck[0]} tight all the way home>. {h.name} learned that <every problem is small when friends help|two heads are
better than one>.
""",
    # Two want the same thing.
    """
{h.His} best friend was {f.kind} named {f.name}.

One day, {h.name} and {f.name} found a {color} {shared} near {place}. "It is mine!" said {h.name}. "No, I saw it first!" said
{f.name}. They <pulled and pulled|shouted and shouted>, and nobody had any fun. <{f.name} began to cry.|{f.name} sat down on the
ground and cried.>

{m.name} <heard the noise and came|came to see what was wrong>. "<Why are you sad|What is the matter>?" {m.he} asked. "We both
want the {shared}," said {h.name}. {m.name} <smiled|thought for a moment>. "You can take turns," {m.he} said. "<Sharing makes a
good thing twice as good|A toy is more fun with a friend>." {h.name} looked at {f.name} and felt sorry. "I am sorry, {f.name}.
You can go first," {h.he} said.

{f.name} <smiled and wiped {f.his} tears|stopped crying and smiled>. "Thank you, {h.name}. Then it is your turn," {f.he} said.
They took turns with the {shared} all day, and they <laughed a lot|had more fun than ever>. <At the end of the day, they ate
{treats} together and were best friends again.|From then on, {h.name} and {f.name} always shared.>
""",
    # A fear.
    """
But {h.name} was afraid of {fear[0]}.

One day, {h.name} was with {m.name}. {fear[1]}. {h.name} <began to shake|closed {h.his} eyes|hid behind {m.name}>. "<I am
scared|I do not like this|I want to go home>!" {h.he} <cried|said>. {m.name} took {h.his} hand. "It is <okay|all right> to be
scared," {m.he} said <softly|gently>. "{fear[2]}. <Will you try with me|Shall we try together>?"

{h.name} <was not sure|thought about it for a long time>. {h.His} heart went <thump, thump|boom, boom>. Then {h.he} took a deep
breath and <said, "I will try."|nodded.> {h.name} {fear[3]}. "<Wow|Look, {m.name}>! <It is not so bad|This is fun>!" {h.he}
said.

{m.name} <gave {h.him} a big hug|smiled at {h.him}>. "<I am proud of you|You were very brave>," {m.he} said. {h.name} was not
afraid of {fear[0]} anymore. <That night, {h.he} told {f.name} all about it.|The next day, {h.he} helped {f.name} to be brave
too.> {h.name} learned that <being brave means trying even when you are scared| new things can be fun>.
""",
    # A gift, and something is missing.
    """
{h.He} lived <near {place}|in a small house> with {m.name}.

One morning, {h.name} woke up early. It was {m.name}'s birthday! "I will {gift[0]} for {m.name}," {h.he} <said|thought>.
{h.name} <looked on the shelf|opened the box>, but {h.he} found no {gift[1]}. "<Oh no|Oh dear>! I cannot {gift[0]} without
{gift[1]}," {h.he} said.

{h.name} <ran|walked> to the house of {h.his} friend {f.name} and knocked on the door. "<Hello|Hi>, {f.name}. Do you have some
{gift[1]}?" {h.he} asked. "Yes, I do," said {f.name}. "You helped me <last week|when I was sick>, so now I will help you."
{f.name} gave {h.him} the {gift[1]}, and they went back together. They <worked all morning|worked very hard>. <{h.name} got a
little messy, but {h.he} did not care.|They sang a song while they worked.>

When {m.name} came home, {h.name} and {f.name} shouted, "Happy birthday!" {m.name} saw the {gift[2]} and <had tears of joy in
{m.his} eyes|clapped {m.his} hands>. "This is the best {gift[2]} in the whole world," {m.he} said. {h.name} thanked {f.name} for
{f.his} help, and they all <danced around the room|ate {treats} and laughed>.
""",
    # A new friend.
    """
But {h.name} was lonely, because {h.he} had nobody to play with.

One {weather} day, {h.name} <went to {place}|walked to {place} with {m.name}>. There {h.he} saw {f.kind} sitting alone <under a
tree|on a bench|on a big stone>. {h.name} wanted to say hello, but {h.he} was <shy|too shy>. "What if {f.he} does not like me?"
{h.he} <asked {m.name}|thought>. <"Just be kind and smile," said {m.name}.|Then {h.he} remembered what {m.name} always said.
"Just be kind and smile.">

{h.name} had some {treats} in {h.his} bag. {h.He} walked over <slowly|with small steps> and said, "<Hello|Hi>, my name is
{h.name}. Do you want some {treats}?" {f.the_kind} looked up and smiled. "Yes, please! I am {f.name}. I am new here, and I have
no friends," {f.he} said. "<Now you have one|I will be your friend>," said {h.name}.

They ate the {treats} and played {game} until <the sun went down|it was time to go home>. "Can we play again tomorrow?" asked
{f.name}. "Yes!" said {h.name}. After that, {h.name} and {f.name} <met every day|were best friends>, and {h.name} was never
lonely again.
""",
    # A hurt animal.
    """
One {weather} <day|morning>, {h.name} was walking near {place}. {h.He} heard a <small|quiet> sound. "{hurt[1]}!" {h.He} looked
<around|behind a bush> and saw a little {hurt[0]}. Its {hurt[2]} was hurt, and it could not {hurt[3]}. "<Poor little
{hurt[0]}|Do not be afraid>," said {h.name}. "I will help you."

{h.name} <carried|took> the {hurt[0]} home <very carefully|in {h.his} hat>. "{m.name}, can we help it?" {h.he} asked. "Of
course," said {m.name}. They <put a soft bandage on|cleaned> its {hurt[2]}, gave it <some water|something to eat> and made a
warm bed in a box. <Every day, {h.name} sat next to the box and sang to it.|Every morning, {h.name} ran to see the {hurt[0]}.>

After <a week|some days>, the {hurt[0]} was strong again. It wanted to {hurt[3]}! {h.name} was <a little sad|sad and happy at
the same time>, because {h.he} <loved the {hurt[0]}|knew it was time to say goodbye>. "It has a family too," said {m.name}. They
took it back to {place}, and the {hurt[0]} began to {hurt[3]}. <It looked back one time, as if to say thank you.|"Goodbye,
little friend!" called {h.name}.> Now {h.name} often goes there, and sometimes the {hurt[0]} comes to say hello.
""",
    # Something breaks, and the truth is told.
    """
{m.name} had a beautiful {color} {fragile}. "Please do not play near the {fragile}," {m.he} always said.

One day, it was raining, and {h.name} <played with the {toy} in the house|ran around in the house with the {toy}>. <Oops|Oh no>!
The {toy} <hit|bumped into> the {fragile}. Crash! The {fragile} <fell down and broke|broke into many pieces>. {h.name} was <very
scared|afraid>. {h.He} <hid behind the sofa|hid under the table>. "<Will {m.name} be angry|What will {m.name} say>?" {h.he}
thought. But {h.he} had a bad feeling in {h.his} tummy.

{m.name} came in and saw the {fragile}. "What happened here?" {m.he} asked. {h.name} came out and looked at the floor. "I broke
it," {h.he} said <quietly|with a small voice>. "I played with the {toy}. I am <very |so |>sorry." {m.name} <was quiet for a
moment|took a deep breath>. Then {m.he} <hugged {h.him}|took {h.his} hand>. "I am sad about the {fragile}," {m.he} said, "but I
am glad that you told the truth."

They <cleaned up the pieces together|put the pieces back together with glue>. <{h.name} made a new {fragile} of clay and painted
it {color}.|{h.name} promised to be careful, and {h.he} kept {h.his} promise.> {h.name} learned that <telling the truth is
always best|everyone makes mistakes, and it is good to say sorry>.
""",
    # A seed and patience.
    """
One spring day, {m.name} gave {h.name} a <tiny|small> seed. "Plant it and take good care of it," {m.he} said. {h.name} <made a
hole|dug a little hole> in the garden and put the seed in. {h.He} gave it water every day.

<One day went by. Two days went by. Three days went by.|Many days went by.> But nothing grew. "<Why does it not grow|Is my seed
asleep>?" asked {h.name}. {h.His} friend {f.name} <laughed and said|shook {f.his} head and said>, "That seed will never grow!"
{h.name} was sad and wanted to <dig it up|give up>. "<Be patient|Wait a little>," said {m.name}. "Good things take time." So
{h.name} <waited and waited|gave the seed more water and waited>. The rain came, and the sun came.

Then, one morning, {h.name} saw <a tiny green leaf|something green>! It grew and grew, and soon there was a big {plant[0]}.
{plant[1]}. "Look, {m.name}! Look, {f.name}!" {h.name} <shouted|called>. {f.name} said, "<I am sorry that I laughed|I was
wrong>. It is <beautiful|wonderful>!" {h.name} <smiled|was not angry> and <gave {f.name} a seed too|showed {f.name} how to plant
a seed>. Now they both know that it is good to wait.
""",
    # Learning to do something.
    """
{h.name} wanted to {skill[0]}, just like {h.his} friend {f.name}.

One {weather} day, {h.name} went outside to try. <The first time|At first>, {skill[1]}. {h.He} tried again, but {skill[1]}
again. "<I will never learn it|It is too hard|I cannot do it>!" {h.he} said, and {h.he} <sat down and cried|kicked a stone>.

{f.name} came and sat next to {h.him}. "<Do not give up|Do not be sad>, {h.name}," {f.he} said. "I could not do it at first. I
tried <a hundred times|every day for a month>." "Really?" asked {h.name}. "Really," said {f.name}. "<Come, I will show you|Let's
try it together>." {f.name} showed {h.him} how to {skill[0]}, <slowly and step by step|again and again>. <{h.name} listened and
watched.|{h.name} did the same.>

{h.name} tried the next day, and the day after that. <Each time it was a little better.|It was hard, but {h.he} did not stop.>
Then, one day, {h.name} {skill[2]}! "<I did it|I can do it>!" {h.he} <shouted|cried>. {f.name} clapped and <cheered|jumped up
and down>. {m.name} <gave them some {treats}|heard the good news and gave them some {treats}>, and {h.name} felt very proud.
{h.He} learned that <you must never give up|every big thing starts with a small try>.
""",
    # A race.
    """
One {weather} day, there was a big race near {place}. The winner would get {prize}. {h.name} could run very fast. "I will win,"
{h.he} <said|told {m.name}>. {h.His} friend {f.name} wanted to run too.

"One, two, three, go!" <called {m.name}|said {m.name}>. Everyone ran. {h.name} ran <like the wind|faster than all the others>,
and soon {h.he} was in front. Then {h.he} heard a cry. {f.name} <was on the ground|had fallen over a stone>, and {f.his} knee
was hurt. {h.name} looked at the end of the race. It was so close! Then {h.he} looked at {f.name}. {h.He} <stopped and ran
back|turned around>. "<Are you okay|Does it hurt>?" {h.he} asked. "<It hurts a lot|I cannot walk>," said {f.name}.

{h.name} helped {f.name} to stand up. "<Hold on to me|Lean on me>," {h.he} said. "We will finish together." They walked slowly,
and they came in last. But everybody <clapped and cheered|stood up and clapped>! {m.name} <hugged them both|had a big smile>.
"{h.name} did not win the race," {m.he} said, "but {h.he} <has the biggest heart|is a true friend>." And {h.name} and {f.name}
got {prize} <together|too>. <That was the best day of all.|They shared some {treats} and laughed.>
""",
    # A rainy day.
    """
{h.name} and {h.his} friend {f.name} wanted to go to {place}. They <packed some {treats}|put {treats} in a basket> and were
ready to go.

But when they opened the door, it was raining. <Drip, drop, drip, drop.|Big drops fell from the sky.> "<Oh no|This is not fair>!
Now our day is <spoiled|no fun>," said {h.name}. {f.name} looked <sad|out of the window and sighed>. They sat on the floor and
did not know what to do.

{m.name} came into the room. "<Why are you so quiet|Why the long faces>?" {m.he} asked. "We cannot go to {place}," said
{h.name}. {m.name} thought for a moment. "Then let's {indoor[0]}!" {m.he} said. {h.name} and {f.name} <looked at each
other|jumped up>. "Yes!" they <said|shouted>. {indoor[1]}. They <laughed so much that they forgot the rain|laughed and laughed>.
<Then they ate the {treats} on the floor like a picnic.|{m.name} brought the {treats}, and they had a picnic on the floor.>

After some time, {f.name} looked outside. "<The rain has stopped|The sun is back>!" {f.he} said. There was a big rainbow in the
sky. "<This was a good day after all|I like rainy days now>," said {h.name}. {h.He} learned that <you can have fun anywhere with
a friend|even a rainy day can be a good day>.
""",
)
